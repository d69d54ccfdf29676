"""A quote service beside the order path that knows OpenTelemetry and nothing of this product.

    asker --HTTP/1.1, traceparent--> service: bounded queue -> worker: cache lookup, (load terms), price

Two processes with the real opentelemetry-sdk and its OTLP exporters, configured by the SDK's own environment variables
alone. Neither imports the probe. They need the extra `otel-demo`; `plan` says how to start them, `pricing` is pure.
"""
