"""What people look at: tables, figures, a run's folder."""
