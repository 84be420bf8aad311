//! The catalogue: which datasets there are, and what each one is now.
