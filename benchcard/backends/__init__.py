"""Where a grid runs, one file per backend. A backend places steps on machines; it cannot change a number."""
