"""What is asked, checked, and the rows that it gives."""
