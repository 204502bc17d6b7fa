"""The documentation: Markdown, figures, and what generates the reference pages."""
