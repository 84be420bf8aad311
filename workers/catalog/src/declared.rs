//! What a resource declares of a dataset, kept beside it for whoever takes uploads.
//!
//! The catalogue does not look into it: a dataset may be declared before it has a version, and by a newer program.

use lakehouse_contract::{DatasetName, catalog::Declaration, keys};
use lakehouse_store::{Condition, Error as StoreError};

use crate::{Catalog, Error, Result};

/// The largest declaration, in bytes. An API server takes no larger resource.
pub(crate) const MAX_BYTES: u64 = 1 << 20;

impl Catalog {
    /// What is declared of a dataset, read from the store each time.
    pub async fn declared(&self, name: &DatasetName) -> Result<Option<Declaration>> {
        let damaged = |message: String| Error::DamagedDeclaration { name: name.clone(), message };
        let read = match self.store().get(&keys::declared(name), None).await {
            Ok(object) => object.bytes(MAX_BYTES).await,
            Err(error) => Err(error),
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error @ (StoreError::TooLarge { .. } | StoreError::Damaged { .. })) => {
                return Err(damaged(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(error.to_string()))
    }

    /// Keeps what is declared of a dataset, in place of what was.
    pub async fn declare(&self, name: &DatasetName, declaration: &Declaration) -> Result<()> {
        let body = serde_json::to_vec(declaration).map_err(|error| Error::Invalid(error.to_string()))?;
        self.store().put(&keys::declared(name), body.into(), Condition::Always).await?;
        Ok(())
    }

    /// Forgets what is declared of a dataset; where nothing is, that is no error.
    pub async fn undeclare(&self, name: &DatasetName) -> Result<()> {
        Ok(self.store().delete(&keys::declared(name)).await?)
    }
}
