"""Feature blocks of (cell type, compound) rows: what is known of the names, the structures and the other rows."""
