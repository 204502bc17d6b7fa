// What happens to files below WRITES_ROOT, told to the file that WRITES_LOG names, a line each:
//   C file        created              T file        emptied as it was opened
//   S file size   synced; or a folder  D file        deleted
//   M from to     renamed              R from to     renamed over another file
//   L from to     linked
// The process is killed right after as many renames and links as the file WRITES_LOG.kill says.
// Loaded by LD_PRELOAD.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int name_of(int file, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, out, PATH_MAX - 1);
    if (length >= 0) out[length] = 0;
    return length >= 0;
}

// The absolute path of a name in a folder; empty where there is none.
static void resolve(int folder, const char *path, char *out) {
    char base[PATH_MAX] = "";
    out[0] = 0;
    if (path[0] != '/' && !(folder == AT_FDCWD ? !!getcwd(base, PATH_MAX) : name_of(folder, base)))
        return;
    if (strlen(base) + strlen(path) + 2 > PATH_MAX) return;
    if (path[0] != '/') strcat(strcpy(out, base), "/");
    strcat(out, path);
}

static int tell(char what, const char *one, const char *two) {
    const char *root = getenv("WRITES_ROOT"), *log = getenv("WRITES_LOG");
    char line[2 * PATH_MAX + 8];
    if (!root || !log || strncmp(one, root, strlen(root))) return 0;
    int length = snprintf(line, sizeof line, "%c\t%s\t%s\n", what, one, two);
    int file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0) return 0;
    syscall(SYS_write, file, line, length);
    syscall(SYS_close, file);
    return 1;
}

static int open_file(int folder, const char *path, int flags, int mode) {
    int is_new = flags & O_CREAT && faccessat(folder, path, F_OK, 0);
    int file = NEXT(openat64)(folder, path, flags, mode);
    char name[PATH_MAX];
    if (file >= 0 && (is_new || flags & O_TRUNC) && name_of(file, name))
        tell(is_new ? 'C' : 'T', name, "");
    return file;
}
#define MODE                                     \
    va_list more;                                \
    va_start(more, flags);                       \
    int mode = va_arg(more, int);                \
    va_end(more);
int open(const char *path, int flags, ...) { MODE return open_file(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return open_file(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return open_file(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return open_file(at, path, flags, mode); }

static int synced(int file, int failed) {
    char name[PATH_MAX], size[32];
    struct stat now;
    if (!failed && name_of(file, name) && !fstat(file, &now)) {
        snprintf(size, sizeof size, "%lld", (long long)now.st_size);
        tell('S', name, size);
    }
    return failed;
}
int fsync(int file) { return synced(file, NEXT(fsync)(file)); }
int fdatasync(int file) { return synced(file, NEXT(fdatasync)(file)); }

static void kill_when_due(void) {
    static int count;
    char path[PATH_MAX + 8], text[32] = "";
    snprintf(path, sizeof path, "%s.kill", getenv("WRITES_LOG"));
    int file = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    if (__sync_add_and_fetch(&count, 1) == atoi(text)) kill(getpid(), SIGKILL);
}

static void name(char what, int from, const char *one, int to, const char *two) {
    char first[PATH_MAX], second[PATH_MAX];
    resolve(from, one, first);
    resolve(to, two, second);
    if (tell(what, first, second)) kill_when_due();
}
int renameat2(int from, const char *one, int to, const char *two, unsigned flags) {
    int is_over = !faccessat(to, two, F_OK, 0);
    int failed = NEXT(renameat2)(from, one, to, two, flags);
    if (!failed) name(is_over ? 'R' : 'M', from, one, to, two);
    return failed;
}
int renameat(int from, const char *one, int to, const char *two) {
    return renameat2(from, one, to, two, 0);
}
int rename(const char *one, const char *two) { return renameat2(AT_FDCWD, one, AT_FDCWD, two, 0); }
int linkat(int from, const char *one, int to, const char *two, int flags) {
    int failed = NEXT(linkat)(from, one, to, two, flags);
    if (!failed) name('L', from, one, to, two);
    return failed;
}
int link(const char *one, const char *two) { return linkat(AT_FDCWD, one, AT_FDCWD, two, 0); }
int unlinkat(int folder, const char *one, int flags) {
    char path[PATH_MAX];
    resolve(folder, one, path);
    int failed = NEXT(unlinkat)(folder, one, flags);
    if (!failed) tell('D', path, "");
    return failed;
}
int unlink(const char *one) { return unlinkat(AT_FDCWD, one, 0); }
