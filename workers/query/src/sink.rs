//! Where a query's rows go: into the bytes of an answer, or to a reader in this process.

use std::collections::VecDeque;

use arrow::{
    array::{RecordBatch, StructArray},
    datatypes::SchemaRef,
};

use crate::{Error, values::Shape};

/// Takes the rows of one query.
pub(crate) trait Sink: Sized + 'static {
    /// What is handed on.
    type Piece: Send + Unpin + 'static;

    /// Takes a batch of rows.
    fn rows(&mut self, batch: StructArray) -> Result<(), Error>;

    /// What can be handed on before the end, if it is enough for that. Asked again until there is nothing.
    fn ready(&mut self) -> Option<Self::Piece>;

    /// The last piece, if anything is left.
    fn finish(self) -> Result<Option<Self::Piece>, Error>;
}

/// Makes a sink once the columns are known.
pub(crate) type Open<S> = Box<dyn Fn(&Shape, &SchemaRef) -> Result<S, Error> + Send>;

/// Rows as they come, behind an empty batch that tells the columns.
#[derive(Debug)]
pub(crate) struct Batched(VecDeque<RecordBatch>);

impl Batched {
    pub(crate) fn start(schema: &SchemaRef) -> Self {
        Self([RecordBatch::new_empty(schema.clone())].into())
    }
}

impl Sink for Batched {
    type Piece = RecordBatch;

    fn rows(&mut self, batch: StructArray) -> Result<(), Error> {
        self.0.push_back(batch.into());
        Ok(())
    }

    fn ready(&mut self) -> Option<RecordBatch> {
        self.0.pop_front()
    }

    fn finish(mut self) -> Result<Option<RecordBatch>, Error> {
        Ok(self.0.pop_front())
    }
}
