"""Tables, figures and texts about evaluated runs and about votes; nothing here trains or predicts."""
