"""What commands say of their results: documents of headlines, tables, charts; their renderers."""
