"""Sources: which model, data set and metric script a spec names, by content or commit. Leaves loading to `tasks`."""
