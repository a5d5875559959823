{{- define "enginewright.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "enginewright.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "enginewright.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of one component: dict "root" . "component" "operator" */}}
{{- define "enginewright.selector" -}}
app.kubernetes.io/name: {{ include "enginewright.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "enginewright.labels" -}}
{{ include "enginewright.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: enginewright
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Reference of an image: dict "root" . "image" .Values.images.control */}}
{{- define "enginewright.image" -}}
{{- $prefix := ternary "" (printf "%s/" (trimSuffix "/" .root.Values.images.registry)) (empty .root.Values.images.registry) -}}
{{- if .image.digest -}}
{{- printf "%s%s@%s" $prefix .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s%s:%s" $prefix .image.repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What all our own pods have: dict "root" . "component" "operator" "settings" .Values.operator */}}
{{- define "enginewright.pod" -}}
serviceAccountName: {{ include "enginewright.fullname" .root }}-{{ .component }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .settings.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
  - {{- toYaml . | nindent 4 }}
    {{- if not (hasKey . "labelSelector") }}
    labelSelector:
      matchLabels: {{- include "enginewright.selector" $ | nindent 8 }}
    {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Metadata of the pods of a component: the same arguments. */}}
{{- define "enginewright.podMetadata" -}}
labels:
  {{- include "enginewright.labels" . | nindent 2 }}
  {{- with .settings.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .settings.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "enginewright.container" -}}
image: {{ include "enginewright.image" (dict "root" .root "image" .root.Values.images.control) }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources: {{- toYaml .settings.resources | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
{{- end -}}

{{/* Where the builder's digest stands in every key. */}}
{{- define "enginewright.toolchainDigest" -}}
{{- $image := .Values.images.builder -}}
{{- default (default .Chart.AppVersion $image.tag) $image.digest -}}
{{- end -}}

{{- define "enginewright.storeFolder" -}}
{{- if hasPrefix "file://" .Values.store.uri -}}{{ trimPrefix "file://" .Values.store.uri }}{{- end -}}
{{- end -}}

{{/* Pods that the operator makes, in the namespaces of the models. */}}
{{- define "enginewright.servers" -}}
app.kubernetes.io/part-of: enginewright
app.kubernetes.io/managed-by: enginewright
app.kubernetes.io/component: server
{{- end -}}

{{/* Those of engines that run on several nodes. */}}
{{- define "enginewright.ranks" -}}
app.kubernetes.io/part-of: enginewright
app.kubernetes.io/managed-by: enginewright
enginewright.io/ranks: "true"
{{- end -}}

{{- define "enginewright.builders" -}}
app.kubernetes.io/part-of: enginewright
app.kubernetes.io/managed-by: enginewright
app.kubernetes.io/component: builder
{{- end -}}
