{{/*
What each program may do; tests compare this with what the programs did. Nothing reads a Secret.

rules.PROGRAM: where the models are, in the whole cluster or in watchNamespace alone.
everywhere.PROGRAM: in the whole cluster in either case.
here.PROGRAM: in the namespace of the release.
*/}}
{{- define "enginewright.rules.operator" -}}
- {apiGroups: [enginewright.io], resources: [optimizedmodels], verbs: [get, list, watch]}
- {apiGroups: [enginewright.io], resources: [optimizedmodels/status], verbs: [patch]}
- {apiGroups: [enginewright.io], resources: [enginebuilds], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [enginewright.io], resources: [enginebuilds/status], verbs: [patch]}
# Where OwnerReferencesPermissionEnforcement is on, an owner reference that blocks deletion needs this.
- {apiGroups: [enginewright.io], resources: [optimizedmodels/finalizers, enginebuilds/finalizers], verbs: [update]}
- {apiGroups: [batch], resources: [jobs], verbs: [list, watch, create]}
- {apiGroups: [apps], resources: [deployments], verbs: [list, watch, create, patch, delete]}
- {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [list, watch, create, patch]}
# Of models whose replicas span nodes; a cluster without this kind is asked now and then whether it has come.
- {apiGroups: [leaderworkerset.x-k8s.io], resources: [leaderworkersets], verbs: [list, watch, create, patch, delete]}
- {apiGroups: [""], resources: [services], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [""], resources: [configmaps], verbs: [list, watch, create, patch, delete]}
- {apiGroups: [""], resources: [pods], verbs: [list, watch]}
- {apiGroups: [""], resources: [pods/log], verbs: [get]}
- {apiGroups: [""], resources: [events], verbs: [create]}
{{- end -}}

{{- define "enginewright.everywhere.operator" -}}
- {apiGroups: [enginewright.io], resources: [acceleratorclasses], verbs: [get, list, watch]}
- {apiGroups: [enginewright.io], resources: [acceleratorclasses/status], verbs: [patch]}
# The accelerators of a class are on nodes, and taken by pods of whomever.
- {apiGroups: [""], resources: [nodes], verbs: [list]}
{{- if .Values.watchNamespace }}
- {apiGroups: [""], resources: [pods], verbs: [list]}
{{- end }}
{{- end -}}

{{- define "enginewright.here.operator" -}}
# The Lease by which one replica of the operator is active. Creation cannot be limited to a name.
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}
- {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [{{ include "enginewright.lease" . }}], verbs: [get, patch]}
{{- if .Values.gateway.enabled }}
# Every gateway is asked for its figures of a canary.
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list]}
{{- end }}
{{- end -}}

{{- define "enginewright.rules.gateway" -}}
- {apiGroups: [enginewright.io], resources: [optimizedmodels], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
{{- end -}}

{{- define "enginewright.everywhere.gateway" -}}{{- end -}}

{{- define "enginewright.here.gateway" -}}{{- end -}}

{{- define "enginewright.rules.autoscaler" -}}
- {apiGroups: [enginewright.io], resources: [optimizedmodels], verbs: [get, list, watch]}
- {apiGroups: [enginewright.io], resources: [optimizedmodels/scale, optimizedmodels/status], verbs: [patch]}
- {apiGroups: [apps], resources: [deployments], verbs: [list, watch]}
- {apiGroups: [""], resources: [pods], verbs: [list, watch]}
- {apiGroups: [""], resources: [events], verbs: [create]}
{{- end -}}

{{- define "enginewright.everywhere.autoscaler" -}}{{- end -}}

{{- define "enginewright.here.autoscaler" -}}
# Every gateway is asked for its figures.
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list]}
{{- end -}}

{{- define "enginewright.rules.gc" -}}{{- end -}}

{{/* All that may name an artifact, in every namespace: what nothing names goes. */}}
{{- define "enginewright.everywhere.gc" -}}
- {apiGroups: [enginewright.io], resources: [enginebuilds, optimizedmodels], verbs: [list]}
- {apiGroups: [batch], resources: [jobs], verbs: [list]}
- {apiGroups: [apps], resources: [deployments], verbs: [list]}
- {apiGroups: [""], resources: [pods], verbs: [list]}
{{- end -}}

{{- define "enginewright.here.gc" -}}{{- end -}}

{{/* A role and its binding: dict "root" . "component" "operator" "name" NAME "namespace" NAMESPACE "rules" TEXT; no namespace: of the cluster. */}}
{{- define "enginewright.role" -}}
{{- $kind := ternary "ClusterRole" "Role" (empty .namespace) }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "enginewright.labels" . | nindent 4 }}
rules: {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "enginewright.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ $kind }}, name: {{ .name }}}
subjects:
  - {kind: ServiceAccount, name: {{ include "enginewright.fullname" .root }}-{{ .component }}, namespace: {{ .root.Release.Namespace }}}
{{- end -}}

{{- define "enginewright.lease" -}}enginewright-operator{{- end -}}
