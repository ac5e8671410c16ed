"""The facts of a published card, parsed from its text. Leaves writing a card to the layouts."""
