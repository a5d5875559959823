{{/* What each program may do; tests compare this with what the programs did. Nothing reads a Secret. */}}
{{- define "enginewright.rules.operator" -}}
- {apiGroups: [enginewright.io], resources: [optimizedmodels], verbs: [get, list, watch]}
- {apiGroups: [enginewright.io], resources: [optimizedmodels/status], verbs: [patch]}
- {apiGroups: [enginewright.io], resources: [enginebuilds], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [enginewright.io], resources: [enginebuilds/status], verbs: [patch]}
- {apiGroups: [enginewright.io], resources: [acceleratorclasses], verbs: [get, list, watch]}
- {apiGroups: [enginewright.io], resources: [acceleratorclasses/status], verbs: [patch]}
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
- {apiGroups: [""], resources: [nodes], verbs: [list]}
{{- end -}}

{{- define "enginewright.rules.gateway" -}}
- {apiGroups: [enginewright.io], resources: [optimizedmodels], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
{{- end -}}

{{- define "enginewright.rules.autoscaler" -}}
- {apiGroups: [enginewright.io], resources: [optimizedmodels], verbs: [get, list, watch]}
- {apiGroups: [enginewright.io], resources: [optimizedmodels/scale, optimizedmodels/status], verbs: [patch]}
- {apiGroups: [apps], resources: [deployments], verbs: [list, watch]}
- {apiGroups: [""], resources: [pods], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list]}
- {apiGroups: [""], resources: [events], verbs: [create]}
{{- end -}}

{{/* All that may name an artifact, in every namespace: what nothing names goes. */}}
{{- define "enginewright.rules.gc" -}}
- {apiGroups: [enginewright.io], resources: [enginebuilds, optimizedmodels], verbs: [list]}
- {apiGroups: [batch], resources: [jobs], verbs: [list]}
- {apiGroups: [apps], resources: [deployments], verbs: [list]}
- {apiGroups: [""], resources: [pods], verbs: [list]}
{{- end -}}

{{- define "enginewright.lease" -}}enginewright-operator{{- end -}}
