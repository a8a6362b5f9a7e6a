"""Speed, memory and start-up beside torch; ``make bench`` runs them all."""
