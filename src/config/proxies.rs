//! From the model to settings: the networks whose word about a client's address is taken.
//!
//! Owns the checks that keep a slip from trusting nobody, or everybody.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::Spanned;

use super::build::Builder;
use super::error::Problem;
use super::model;
use super::settings::TrustedProxies;
use super::values::OneOrMany;

impl Builder<'_> {
    /// `listen.proxy_protocol`
    pub(super) fn trusted_proxies(
        &mut self,
        value: Option<&Spanned<model::ProxyProtocolModel>>,
    ) -> TrustedProxies {
        let Some(value) = value else { return TrustedProxies::default() };
        let texts = value.get_ref().trusted.as_ref().map(OneOrMany::list).unwrap_or_default();
        if texts.is_empty() && !self.damaged {
            let problem =
                Problem::at(value.span(), "`proxy_protocol` trusts nobody", "no network in `trusted`")
                    .help("`proxy_protocol = { trusted = [\"10.0.0.0/8\"] }` names the load balancers");
            self.problems.error(problem);
        }
        let mut networks = Vec::new();
        for text in texts {
            match network(text.get_ref()) {
                Err(why) => {
                    let title = format!("`{}` {why}", text.get_ref());
                    let problem = Problem::at(text.span(), title, "")
                        .help("write a network, \"10.0.0.0/8\", or an address, \"10.1.2.3\"");
                    self.problems.error(problem);
                }
                Ok(network) if networks.contains(&network) => {
                    self.problems.error(Problem::at(text.span(), "this network is named twice", "again"));
                }
                Ok(network) => {
                    if network.prefix_len() == 0 {
                        let title = "every client could claim any address";
                        self.problems.warn(Problem::at(text.span(), title, "everybody is trusted"));
                    }
                    networks.push(network);
                }
            }
        }
        TrustedProxies(networks)
    }
}

/// A network, or an address as the network of one.
fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    let network: IpNet = text.parse().map_err(|_| "is not a network".to_owned())?;
    if network.trunc() != network {
        return Err(format!("is an address within a network, which is {}", network.trunc()));
    }
    match network.addr() {
        // Addresses of clients are compared in the shorter form.
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Err("is a network of IPv4 addresses in the form of IPv6".to_owned())
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_are_trusted_and_nothing_else() {
        let trusted =
            |texts: &[&str]| TrustedProxies(texts.iter().map(|text| network(text).unwrap()).collect());
        let proxies = trusted(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::ffff:198.51.100.1"]);
        for (address, inside) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("::ffff:10.1.2.3", true),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
            ("198.51.100.1", true),
        ] {
            assert_eq!(proxies.contain(address.parse().unwrap()), inside, "{address}");
        }
        assert!(!TrustedProxies::default().contain(IpAddr::from([127, 0, 0, 1])));
        for bad in ["", "10.0.0.0/33", "10.0.0.1/8", "localhost", "10.0.0.0/8 ", "::ffff:10.0.0.0/104"] {
            assert!(network(bad).is_err(), "{bad}");
        }
        assert!(network("::/0").is_ok(), "all of IPv6 is not a form of IPv4");
    }
}
