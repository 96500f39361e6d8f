"""The public kit that checks the mathematics of any SDE, sampler, model or loss."""
