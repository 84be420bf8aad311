//! A span for each provider that is asked, named as OpenTelemetry's conventions for generative AI name things
//! (opentelemetry.io/docs/specs/semconv/gen-ai). It holds no word of a prompt, of an answer, or of an upstream's complaint.

use axum::http::{HeaderMap, HeaderValue};
use lakehouse_contract::provider::ProviderKind;
use opentelemetry::{
    Array, Context, KeyValue, StringValue, Value,
    global::{BoxedSpan, BoxedTracer},
    trace::{
        Link, Span, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
        TraceState, Tracer,
    },
};

use crate::{
    ChatError,
    ask::Ask,
    event::Facts,
    metrics::Outcome,
    origin::{TRACEPARENT, TRACESTATE},
    upstream::Upstream,
};

/// The span of a request to a provider, with all its tries. Ends when it is dropped.
pub(crate) struct Call(Option<BoxedSpan>);

impl Call {
    /// Begins one, as a part of the client's trace. `before` is the span of the provider that was asked before this one, and then this:
    /// where the client has no trace, all that a request leads to is one nevertheless. Without a tracer nothing is done, now or later.
    pub(crate) fn begin(
        tracer: Option<&BoxedTracer>,
        ask: &Ask,
        upstream: &Upstream,
        model: &str,
        before: &mut Option<SpanContext>,
    ) -> Self {
        let Some(tracer) = tracer else { return Self(None) };
        let builder = SpanBuilder::from_name(format!("chat {model}"))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes(ask, upstream, model))
            .with_links(before.iter().cloned().map(Link::with_context).collect());
        let parent = match parent(&ask.origin.trace).or_else(|| before.take()) {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let span = tracer.build_with_context(builder, &parent);
        *before = Some(span.span_context().clone());
        Self(Some(span))
    }

    /// What the provider is told of the trace: this span, or what the client said where there is none.
    pub(crate) fn headers(&self, ask: &Ask) -> HeaderMap {
        match &self.0 {
            Some(span) => headers(span.span_context()),
            None => ask.origin.trace.clone(),
        }
    }

    /// The first piece of the answer is there.
    pub(crate) fn first_token(&mut self) {
        if let Some(span) = &mut self.0 {
            span.add_event("first_token", Vec::new());
        }
    }

    /// It failed, and is tried again.
    pub(crate) fn retried(&mut self, error: &ChatError) {
        if let Some(span) = &mut self.0 {
            let mut why = vec![KeyValue::new("error.type", error.kind.code())];
            why.extend(error.upstream_status.map(status_code));
            span.add_event("retry", why);
        }
    }

    /// How it ended. `upstream_status` is what the provider answered, where that was an error.
    pub(crate) fn ended(&mut self, outcome: Outcome, upstream_status: Option<u16>, facts: &Facts) {
        let Some(span) = &mut self.0 else { return };
        if let Some(status) = upstream_status {
            span.set_attribute(status_code(status));
        }
        if outcome != Outcome::Answered {
            span.set_attribute(KeyValue::new("error.type", outcome.label()));
            if outcome != Outcome::ClientLeft {
                span.set_status(Status::error(outcome.label()));
            }
            return;
        }
        let Facts { usage, finish, model } = facts;
        span.set_attributes([
            KeyValue::new("gen_ai.usage.input_tokens", number(usage.prompt_tokens)),
            KeyValue::new("gen_ai.usage.output_tokens", number(usage.completion_tokens)),
        ]);
        if let Some(model) = model {
            span.set_attribute(KeyValue::new("gen_ai.response.model", model.clone()));
        }
        if let Some(finish) = finish {
            let reasons = Array::String(vec![StringValue::from(finish.word())]);
            span.set_attribute(KeyValue::new("gen_ai.response.finish_reasons", Value::Array(reasons)));
        }
    }
}

fn attributes(ask: &Ask, upstream: &Upstream, model: &str) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("gen_ai.operation.name", "chat"),
        KeyValue::new("gen_ai.provider.name", provider(upstream.config.kind)),
        KeyValue::new("gen_ai.request.model", model.to_owned()),
        KeyValue::new("lakehouse.chat_provider", upstream.config.name.clone()),
    ];
    if let Some((host, port)) = upstream.address() {
        attributes.push(KeyValue::new("server.address", host.to_owned()));
        attributes.push(KeyValue::new("server.port", i64::from(port)));
    }
    // What is no number was told to the client already, or is the provider's to judge.
    for name in ["temperature", "top_p"] {
        if let Ok(Some(value)) = ask.fields.get::<f64>(name, "a number") {
            attributes.push(KeyValue::new(format!("gen_ai.request.{name}"), value));
        }
    }
    for name in ["max_tokens", "max_completion_tokens"] {
        if let Ok(Some(value)) = ask.fields.get::<u64>(name, "a whole number") {
            attributes.push(KeyValue::new("gen_ai.request.max_tokens", number(value)));
        }
    }
    attributes
}

/// The conventions' name for a provider, or one in their manner.
fn provider(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Ollama | ProviderKind::OllamaCloud => "ollama",
        ProviderKind::OpenAI => "openai",
        ProviderKind::OpenRouter => "openrouter",
        ProviderKind::OpenCode => "opencode",
        ProviderKind::Kimi => "moonshot_ai",
        ProviderKind::Anthropic => "anthropic",
        ProviderKind::Voyage => "voyage",
    }
}

fn status_code(status: u16) -> KeyValue {
    KeyValue::new("http.response.status_code", i64::from(status))
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// `version-trace-parent-flags` (W3C Trace Context, section 3.2); what is no such thing begins a trace of its own.
fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?.trim();
    let mut parts = text.split('-');
    let [version, trace, span, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let is_hex = |part: &str, length| {
        part.len() == length
            && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let known = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    if !known || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 1);
    let state = headers.get(TRACESTATE).and_then(|state| state.to_str().ok());
    let state: TraceState = state.and_then(|state| state.parse().ok()).unwrap_or_default();
    Some(SpanContext::new(trace, span, flags, true, state)).filter(SpanContext::is_valid)
}

fn headers(context: &SpanContext) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !context.is_valid() {
        return headers;
    }
    let text =
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8());
    let state = context.trace_state().header();
    for (name, value) in [(TRACEPARENT, text), (TRACESTATE, state)] {
        if let Ok(value) = HeaderValue::try_from(value)
            && !value.is_empty()
        {
            headers.insert(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_as_w3c_writes_it_and_told_again() {
        let read = |text: &str| parent(&HeaderMap::from_iter([(TRACEPARENT, text.parse().unwrap())]));
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = read(text).unwrap();
        assert!(context.is_remote() && context.is_sampled());
        assert_eq!(headers(&context)[TRACEPARENT], text);
        // A later version may have more parts.
        assert!(read("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more").is_some());
        for none in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn what_vendors_added_to_a_trace_goes_on() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let sent = [(TRACEPARENT, text.parse().unwrap()), (TRACESTATE, "a=1,b=2".parse().unwrap())];
        let sent = HeaderMap::from_iter(sent);
        assert_eq!(headers(&parent(&sent).unwrap()), sent);
    }
}
