//! A layer that looks at each request on its way in, and finishes its answer with what it saw.
//!
//! axum's `from_fn` can do more: it may hold a request back, and so clones the whole route for every request. What is above a route here
//! needs that nowhere, and costs one allocation.

use std::{
    future::Future,
    task::{Context, Poll},
};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::future::BoxFuture;
use tower::{Layer, Service};

/// `.layer(Around::new(|request| …, |seen, answer| async { … }))`
#[derive(Clone, Copy, Debug)]
pub struct Around<See, Finish> {
    see: See,
    finish: Finish,
}

impl<See, Finish> Around<See, Finish> {
    /// `see` reads what `finish` will need of the request.
    pub fn new<Seen, Answer>(see: See, finish: Finish) -> Self
    where
        See: Fn(&Request) -> Seen,
        Finish: Fn(Seen, Response) -> Answer,
        Answer: Future<Output = Response>,
    {
        Self { see, finish }
    }
}

impl<S, See: Clone, Finish: Clone> Layer<S> for Around<See, Finish> {
    type Service = Within<S, See, Finish>;

    fn layer(&self, inner: S) -> Self::Service {
        Within { inner, around: self.clone() }
    }
}

/// A route with something around it.
#[derive(Clone, Debug)]
pub struct Within<S, See, Finish> {
    inner: S,
    around: Around<See, Finish>,
}

impl<S, See, Finish, Seen, Answer> Service<Request> for Within<S, See, Finish>
where
    S: Service<Request, Response: IntoResponse, Future: Send + 'static>,
    See: Fn(&Request) -> Seen,
    Finish: Fn(Seen, Response) -> Answer + Clone + Send + 'static,
    Seen: Send + 'static,
    Answer: Future<Output = Response> + Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Around { see, finish } = &self.around;
        let (seen, finish) = (see(&request), finish.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?.into_response();
            Ok(finish(seen, answer).await)
        })
    }
}
