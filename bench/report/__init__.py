"""Tables, findings and charts of results, and what renders them."""
