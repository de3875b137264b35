
À
É
!
telemetry.sdk.version
0.31.0

service.name

codex_exec
 
telemetry.sdk.language
rust

env
dev

	host.name
vm

service.version	
0.169.0
%
telemetry.sdk.name
opentelemetryr

codex_otel::metrics::clientQDEBUG*
flushing OTEL metricsYY'Ëýéb$event otel/src/metrics/client.rs:324