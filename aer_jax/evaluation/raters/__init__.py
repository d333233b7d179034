"""How good votes are: agreement, reliability and bias of human and synthetic raters."""
