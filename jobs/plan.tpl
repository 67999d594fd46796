{{- /* What the wrapper has to know and the formula has not, a key and its value in each line. */ -}}
{{- with env "NOMAD_META_consign" }}{{ with (. | base64Decode | parseJSON) -}}
kind {{ .kind }}
timeout {{ .timeout | toJSON }}
{{ with .from_step }}from_step {{ . | toJSON }}
{{ end -}}
{{ if .unmasked }}mask no
{{ end -}}
{{ end }}{{ end -}}
