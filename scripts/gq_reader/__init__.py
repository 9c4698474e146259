"""A second reader of the project's formats, written from formats/*.md alone. Needs numpy only."""
