//! Amounts as Kubernetes writes them: `500m`, `1.5`, `2Gi`, `1e3`.
//!
//! Syntax: `k8s.io/apimachinery/pkg/api/resource.Quantity`. The numbers here are compared and shared out, never written back, so a
//! double is exact enough.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The amount in its unit: bytes, cores. `None` is no quantity.
pub(super) fn value(quantity: &Quantity) -> Option<f64> {
    let text = quantity.0.as_str();
    let end = text
        .char_indices()
        .find(|&(i, c)| !(c.is_ascii_digit() || c == '.' || (i == 0 && matches!(c, '+' | '-'))))
        .map_or(text.len(), |(i, _)| i);
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    Some(number * factor(suffix)?)
}

fn factor(suffix: &str) -> Option<f64> {
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            10f64.powi(exponent)
        }
    };
    Some(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them() {
        for (text, amount) in [
            ("0", 0.0),
            ("500m", 0.5),
            ("1.5", 1.5),
            (".5Gi", 536_870_912.0),
            ("2Gi", 2_147_483_648.0),
            ("1e3", 1000.0),
            ("1E", 1e18),
            ("15E-1", 1.5),
            ("-1k", -1000.0),
        ] {
            assert_eq!(value(&Quantity(text.to_owned())), Some(amount), "{text}");
        }
        for text in ["", "Gi", "1gb", "1 Gi", "1.2.3", "--1", "e", "inf", "NaN"] {
            assert_eq!(value(&Quantity(text.to_owned())), None, "{text}");
        }
    }
}
