"""A check as one self-contained HTML page: ``page.check_to_html`` writes it; charts and pictures have their own files."""
