"""New users and items, folded into trained models."""
