"""What a spec asks for: reading and checking it, and its plan. Running the plan is left to `run`."""
