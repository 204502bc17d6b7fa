// A click on the head of a column sorts its table: by `data-value` where a cell has one.
for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.rows[0].querySelectorAll("button").forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const column = head.cellIndex;
      const falls = head.getAttribute("aria-sort") !== "descending";
      const valueOf = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const order = new Intl.Collator(undefined, { numeric: true });
      const rows = [...table.tBodies[0].rows].sort((one, other) => {
        const [a, b] = [valueOf(one), valueOf(other)];
        const isNumber = a !== "" && b !== "" && !isNaN(a) && !isNaN(b);
        const compared = isNumber ? a - b : order.compare(a, b);
        return falls ? -compared : compared;
      });
      table.tHead.rows[0].querySelectorAll("th").forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      table.tBodies[0].append(...rows);
    });
  });
}
