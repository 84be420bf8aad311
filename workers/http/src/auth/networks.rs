//! The list of networks that may call.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};

/// Networks, and single addresses as networks of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// An entry of a list that is no network, or a list without entries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Something that does not parse.
    #[error("`{0}` is neither an address nor a network such as `10.0.0.0/8`")]
    Entry(String),
    /// It would lock everybody out.
    #[error("the list is empty; leave the variable unset to allow every address")]
    Empty,
}

impl Networks {
    /// Whether an address lies in one of the networks. An IPv4 caller is one on an IPv6 socket, too.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for Networks {
    type Err = Invalid;

    /// Entries are separated by commas or white space.
    fn from_str(list: &str) -> Result<Self, Invalid> {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty());
        let networks = entries.map(network).collect::<Result<Vec<_>, _>>()?;
        if networks.is_empty() {
            return Err(Invalid::Empty);
        }
        Ok(Self(networks))
    }
}

fn network(entry: &str) -> Result<IpNet, Invalid> {
    let parsed = entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
    parsed.map(canonical).map_err(|_| Invalid::Entry(entry.to_owned()))
}

/// `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    if let IpNet::V6(mapped) = network
        && let Some(address) = Ipv6Addr::to_ipv4_mapped(&mapped.addr())
        && let Some(length) = mapped.prefix_len().checked_sub(MAPPED_BITS)
        && let Ok(plain) = Ipv4Net::new(address, length)
    {
        return IpNet::V4(plain);
    }
    network
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_network_of_one() {
        let networks = networks("10.0.0.0/8, 192.168.7.9\nfd00::/8");
        for inside in ["10.255.0.1", "192.168.7.9", "fd12::1"] {
            assert!(networks.contain(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.168.7.8", "fe80::1"] {
            assert!(!networks.contain(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn mapped_addresses_are_the_addresses_they_map() {
        for list in ["10.0.0.0/8", "::ffff:10.0.0.0/104"] {
            assert!(networks(list).contain("::ffff:10.1.2.3".parse().unwrap()), "{list}");
            assert!(networks(list).contain("10.1.2.3".parse().unwrap()), "{list}");
            assert!(!networks(list).contain("::ffff:11.1.2.3".parse().unwrap()), "{list}");
        }
    }

    #[test]
    fn a_wrong_entry_is_named_and_an_empty_list_locks_nobody_out() {
        assert_eq!("10.0.0.0/8,10.0.0/33".parse::<Networks>(), Err(Invalid::Entry("10.0.0/33".into())));
        assert_eq!(" , ".parse::<Networks>(), Err(Invalid::Empty));
    }

    fn networks(list: &str) -> Networks {
        list.parse().unwrap()
    }
}
