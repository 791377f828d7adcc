"""The app: pick a cell and turn a gene, type a compound and see the response, compare runs."""
