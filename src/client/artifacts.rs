//! What was kept of a job's files.

use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use sha2::{Digest as _, Sha256};

use super::{Client, Error, escape};
use crate::{
    artifact::{Described, name},
    hexadecimal,
};

impl Client {
    /// The files that were kept of a job, in the order of their names. Small ones have their content with them.
    pub async fn artifacts(&self, id: &str) -> Result<Vec<Described>, Error> {
        Ok(self.job(id).await?.artifacts)
    }

    /// Gives the content of an artifact of the job `id` to `take`, piece by piece, and compares its SHA-256 at the
    /// end: what was taken is not to be believed before that.
    pub async fn fetch(
        &self,
        id: &str,
        artifact: &Described,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let name = || artifact.name.clone();
        let mut digest = Sha256::new();
        let mut take = |piece: &[u8]| {
            digest.update(piece);
            take(piece).map_err(|source| Error::Write { name: name(), source })
        };
        if let Some(data) = &artifact.data {
            take(&STANDARD.decode(data).map_err(|_| Error::Damaged { name: name() })?)?;
        } else {
            let request = self.request(Method::GET, &name::url(&escape(id), &artifact.name));
            let mut response = self.send(request).await?;
            while let Some(piece) = response.chunk().await.map_err(|source| self.broken(source))? {
                take(&piece)?;
            }
        }
        if hexadecimal::encode(&digest.finalize()) == artifact.sha256 {
            Ok(())
        } else {
            Err(Error::Damaged { name: name() })
        }
    }
}
