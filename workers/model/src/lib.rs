//! Models that embed text in this process: lexical, and sentence transformers.
