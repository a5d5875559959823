{{/* Parts of a NetworkPolicy. */}}

{{/* Ports: list */}}
{{- define "enginewright.ports" -}}
{{- range . }}
- {protocol: TCP, port: {{ int . }}}
{{- end }}
{{- end -}}

{{/* A rule towards peers, everywhere when there are none: dict "ports" list "peers" list */}}
{{- define "enginewright.egress" -}}
{{- if .ports }}
- ports: {{- include "enginewright.ports" .ports | trim | nindent 4 }}
  {{- with .peers }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* A rule for peers, everybody when there are none. */}}
{{- define "enginewright.ingress" -}}
- ports: {{- include "enginewright.ports" .ports | trim | nindent 4 }}
  {{- with .peers }}
  from: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "enginewright.egressDns" -}}
{{- with .Values.networkPolicy.dns }}
- ports:
    {{- range .ports }}
    - {protocol: UDP, port: {{ int . }}}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
  {{- with .peers }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* To the artifacts, unless they are in a folder. The port is that of the endpoint, if it says one. */}}
{{- define "enginewright.egressStore" -}}
{{- if hasPrefix "s3://" .Values.store.uri }}
{{- $ports := .Values.networkPolicy.store.ports }}
{{- if not $ports }}
{{- $endpoint := urlParse (default "https://s3" .Values.store.endpointUrl) }}
{{- $ports = list (default (ternary 80 443 (eq $endpoint.scheme "http")) (regexFind ":[0-9]+$" $endpoint.host | trimPrefix ":")) }}
{{- end }}
{{- include "enginewright.egress" (dict "ports" $ports "peers" .Values.networkPolicy.store.peers) }}
{{- end }}
{{- end -}}

{{/* Our own pods as a peer: dict "root" . "component" "gateway" */}}
{{- define "enginewright.peer" -}}
- podSelector:
    matchLabels: {{- include "enginewright.selector" . | nindent 6 }}
  namespaceSelector:
    matchLabels: {kubernetes.io/metadata.name: {{ .root.Release.Namespace }}}
{{- end -}}
