//! Certificates for tests: an authority, a server and clients.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tenantry::config::settings::{ListenTls, TlsIdentity, TlsMode, TlsVersion};

/// A directory with `ca`, `server` (localhost and tenants' names), client certificates for the common names `shop` and
/// `other`, and one for `shop` that no authority signed.
pub(crate) struct Papers {
    dir: tempfile::TempDir,
}

impl Papers {
    pub(crate) fn new() -> Self {
        let papers = Self { dir: tempfile::tempdir().unwrap() };
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(papers.path("ca.pem"), ca.pem()).unwrap();
        let names = ["localhost", "db.test", "*.db.test", "*.other.test"].map(str::to_owned).to_vec();
        for (file, names, common_name) in
            [("server", names, "ignored"), ("shop", vec![], "shop"), ("other", vec![], "other")]
        {
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, common_name);
            let key = KeyPair::generate().unwrap();
            papers.keep(file, &params.signed_by(&key, &ca).unwrap().pem(), &key);
        }
        let mut forged = CertificateParams::new(vec![]).unwrap();
        forged.distinguished_name.push(DnType::CommonName, "shop");
        let key = KeyPair::generate().unwrap();
        papers.keep("forged", &forged.self_signed(&key).unwrap().pem(), &key);
        papers
    }

    pub(crate) fn listen(&self, mode: TlsMode) -> ListenTls {
        ListenTls {
            mode,
            identity: Some(TlsIdentity { cert: self.path("server.pem"), key: self.path("server.key") }),
            client_ca: Some(self.path("ca.pem")),
            min_version: TlsVersion::V1_2,
        }
    }

    /// A client that trusts the authority and shows the certificate of that name.
    pub(crate) fn client(&self, certificate: Option<&str>) -> ClientConfig {
        self.client_of(certificate, rustls::ALL_VERSIONS)
    }

    pub(crate) fn client_of(
        &self,
        certificate: Option<&str>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = vec![CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap()];
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }

    fn keep(&self, name: &str, pem: &str, key: &KeyPair) {
        std::fs::write(self.path(&format!("{name}.pem")), pem).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }
}
