//! How streams are cut into events. Both readers give the same events however the network cuts the bytes.

mod ndjson;
mod sse;

pub(crate) use ndjson::Ndjson;
pub(crate) use sse::Sse;

/// What a buffer keeps between two events: thousands of streams may be open, and one large event should not cost for ever.
const KEPT: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use proptest::sample::Index;

    /// The bytes, cut at some places.
    pub(super) fn split<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.sort_unstable();
        let mut portions = Vec::new();
        let mut from = 0;
        for place in places {
            portions.push(&bytes[from..place]);
            from = place;
        }
        portions.push(&bytes[from..]);
        portions
    }
}
