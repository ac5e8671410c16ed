"""Where the grid runs: one small file per engine. A backend places steps on machines; it cannot change a number."""
