"""What uploads give away, and what holds it back: attacks, noise that is accounted for, sums that hide their parts."""
