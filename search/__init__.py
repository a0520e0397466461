"""What is tried, where it runs, what is seen of it: Optuna decides, Ray executes, MLflow shows."""
