{{- define "tidegate.labels" -}}
app.kubernetes.io/name: tidegate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "tidegate.subjects" -}}
subjects: [{ kind: ServiceAccount, name: tidegate, namespace: {{ .Release.Namespace }} }]
{{- end }}

{{/* What may be looked at: the rules of the ClusterRole, or of the Role in each listed namespace. */}}
{{- define "tidegate.rules" -}}
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses{{ if not .Values.namespaces }}, ingressclasses{{ end }}]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- define "tidegate.secrets" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, watch]
{{- end }}

{{/* The install configuration, with `configuration` laid over it. */}}
{{- define "tidegate.gate" -}}
{{- $any := ternary "" "0.0.0.0" .Values.dualStack -}}
{{- $kubernetes := dict -}}
{{- if .Values.namespaces }}{{ $_ := set $kubernetes "namespaces" .Values.namespaces }}{{ end -}}
{{- if ne .Values.ingressClass.name "tidegate" }}{{ $_ := set $kubernetes "ingress" (dict "class" .Values.ingressClass.name) }}{{ end -}}
{{- $gate := dict
  "listeners" (dict
    "http" (dict "address" (printf "%s:80" $any))
    "https" (dict "address" (printf "%s:443" $any) "protocol" "https"))
  "limits" (dict "connections" 50000)
  "admin" (dict "address" "127.0.0.1:9901" "socket" "/run/tidegate/admin.sock")
  "share_ports" true
  "drain" (dict "delay" "5s" "deadline" "60s")
  "sources" (dict "kubernetes" $kubernetes)
  "telemetry" (dict "log" (dict "format" "json")) -}}
{{- mustMergeOverwrite $gate (deepCopy .Values.configuration) | toYaml -}}
{{- end }}
