{{- /* What the formula finds in its environment, besides its secrets. consign sends it as JSON in the meta
`consign`; a dispatch by hand brings args, formula, context and action_id instead. */ -}}
{{- with env "NOMAD_META_consign" }}
{{- range $name, $value := (. | base64Decode | parseJSON).env }}
{{ $name }}={{ $value | toJSON }}
{{- end }}
{{- else }}
CONSIGN_FORMULA={{ env "NOMAD_META_formula" | toJSON }}
CONSIGN_CONTEXT={{ env "NOMAD_META_context" | toJSON }}
CONSIGN_ACTION_ID={{ env "NOMAD_META_action_id" | toJSON }}
{{- with env "NOMAD_META_args" }}
{{- range $name, $value := (. | parseJSON) }}
ARG_{{ $name | toUpper | regexReplaceAll "[^A-Z0-9_]" "_" }}={{ if eq (printf "%T" $value) "string" }}{{ $value | toJSON }}{{ else }}{{ $value | toJSON | toJSON }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
