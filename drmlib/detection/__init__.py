"""Detection: one score a sample, higher is more suspicious; the threshold is the caller's."""
