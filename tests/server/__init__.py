"""The control plane: settings, the planner's desk with a fake cluster, the server inside a program."""
