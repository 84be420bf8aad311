//! Language models behind one door: routing by model name, providers, streaming, and chatd.
