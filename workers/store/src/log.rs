//! Logs: an ordered run of records, appended by put-if-absent of the next number.
