/* The documents that a session can be started with: parameters, their checks,
 * and the DocumentContent that the agent receives (docs/protocol.md "Documents"). */
#include "tunneld/gateway/internal.h"
#include "lib/num.h"
#include <stdio.h>
#include <string.h>

enum check { CHECK_PORT, CHECK_LOCAL_PORT, CHECK_HOST, CHECK_TEXT };
#define DOC_PARAMS 3
#define COMMAND_MAX 8192u

struct param {
	const char *name, *description, *dflt;
	enum check check;
}; /* dflt NULL: must be given */
struct gw_doc {
	const char *name, *description, *type;
	struct param params[DOC_PARAMS];
	const char *properties; /* ready JSON; NULL: none */
	bool inputs;		/* has the preferences of shells */
};

#define PORT_PARAM                                                                                                     \
	{                                                                                                              \
		"portNumber", "Port number of the server on the instance", "80", CHECK_PORT                            \
	}
#define LOCAL_PARAM                                                                                                    \
	{                                                                                                              \
		"localPortNumber", "Port number on the client; 0: any", "0", CHECK_LOCAL_PORT                          \
	}
#define COMMAND_PARAM                                                                                                  \
	{                                                                                                              \
		"command", "The command to run on the instance", NULL, CHECK_TEXT                                      \
	}
#define ON_EVERY_SYSTEM(config) "{\"linux\":" config ",\"macos\":" config ",\"windows\":" config "}"

static const struct gw_doc docs[] = {
    {"SSM-SessionManagerRunShell", "Shell on the instance", "Standard_Stream", {{0}}, NULL, true},
    {"AWS-StartPortForwardingSession",
     "Forward a port of the instance",
     "Port",
     {PORT_PARAM, LOCAL_PARAM},
     "{\"portNumber\":\"{{ portNumber }}\",\"type\":\"LocalPortForwarding\",\"localPortNumber\":\"{{ localPortNumber }}\"}",
     false},
    {"AWS-StartPortForwardingSessionToRemoteHost",
     "Forward a port of a host behind the instance",
     "Port",
     {{"host", "Name or address of the host", "localhost", CHECK_HOST}, PORT_PARAM, LOCAL_PARAM},
     "{\"host\":\"{{ host }}\",\"portNumber\":\"{{ portNumber }}\",\"type\":\"LocalPortForwarding\","
     "\"localPortNumber\":\"{{ localPortNumber }}\"}",
     false},
    {"AWS-StartSSHSession",
     "One byte stream to the SSH server of the instance",
     "Port",
     {{"portNumber", "Port number of the SSH server", "22", CHECK_PORT}},
     "{\"portNumber\":\"{{ portNumber }}\"}",
     false},
    {"AWS-StartInteractiveCommand",
     "Run one command on a terminal",
     "InteractiveCommands",
     {COMMAND_PARAM},
     ON_EVERY_SYSTEM("{\"commands\":\"{{ command }}\",\"runAsElevated\":false}"),
     true},
    {"AWS-StartNonInteractiveCommand",
     "Run one command without a terminal",
     "NonInteractiveCommands",
     {COMMAND_PARAM},
     ON_EVERY_SYSTEM("{\"commands\":\"{{ command }}\",\"runAsElevated\":false,\"separateOutputStream\":true}"),
     true},
};

const struct gw_doc *gw_doc_find(const char *name)
{
	if (!name || !*name)
		return &docs[0];
	for (size_t i = 0; i < TNL_COUNT(docs); i++)
		if (strcmp(docs[i].name, name) == 0)
			return &docs[i];
	return NULL;
}

const char *gw_doc_name(const struct gw_doc *d)
{
	return d->name;
}

bool gw_doc_is_port(const struct gw_doc *d)
{
	return strcmp(d->type, "Port") == 0;
}

/* Decimal, no sign, no leading zero, lo..65535. */
static bool is_port(const char *s, unsigned lo)
{
	size_t n = strlen(s);
	if (n < 1 || n > 5 || strspn(s, "0123456789") != n || (s[0] == '0' && n > 1))
		return false;
	unsigned v = 0;
	for (; *s; s++)
		v = v * 10 + (unsigned)(*s - '0');
	return v >= lo && v <= 65535;
}

/* Nothing that a shell or a template would take for something else. */
static bool is_host(const char *s)
{
	size_t n = strlen(s);
	if (n < 1 || n > 253 || s[0] == '-')
		return false;
	for (; *s; s++)
		if ((unsigned char)*s <= ' ' || *s == 127 || strchr(",$^&()!;'\"<>`{}[]|#=\\", *s))
			return false;
	return true;
}

static bool is_valid_value(enum check c, const char *v)
{
	switch (c) {
	case CHECK_PORT:
		return is_port(v, 1);
	case CHECK_LOCAL_PORT:
		return is_port(v, 0);
	case CHECK_HOST:
		return is_host(v);
	case CHECK_TEXT:
		return *v && strlen(v) <= COMMAND_MAX;
	}
	return false;
}

static const struct param *find_param(const struct gw_doc *d, const char *name)
{
	for (int i = 0; i < DOC_PARAMS && d->params[i].name; i++)
		if (strcmp(d->params[i].name, name) == 0)
			return &d->params[i];
	return NULL;
}

/* Exactly one string in a list; *value is NULL when the parameter is not there. */
static int read_one_value(const struct tnl_json *list, const char **value)
{
	*value = NULL;
	if (!list)
		return 0;
	const struct tnl_json *v = tnl_json_is_arr(list) ? tnl_json_first(list) : NULL;
	*value = v && !tnl_json_next(v) ? tnl_json_str(v) : NULL;
	return *value ? 0 : TNL_ESYNTAX;
}

int gw_doc_parameters(const struct gw_doc *d, const struct tnl_json *in, struct tnl_buf *out, char *why, size_t cap)
{
	if (in && !tnl_json_is_obj(in)) {
		snprintf(why, cap, "Parameters is not a map");
		return TNL_ESYNTAX;
	}
	tnl_json_each(v, in) {
		const char *name = tnl_json_key(v);
		if (!name || !find_param(d, name)) {
			snprintf(why, cap, "Parameter \"%.64s\" is not defined in document %s", name ? name : "",
				 d->name);
			return TNL_EINVAL;
		}
	}
	struct tnl_jw w;
	tnl_jw_init(&w, out);
	tnl_jw_obj(&w);
	for (int i = 0; i < DOC_PARAMS && d->params[i].name; i++) {
		const struct param *p = &d->params[i];
		const char *v;
		if (read_one_value(tnl_json_get(in, p->name), &v) != 0) {
			snprintf(why, cap, "Parameter \"%s\" must be a list of one string", p->name);
			return TNL_EINVAL;
		}
		if (!v)
			v = p->dflt;
		if (!v) {
			snprintf(why, cap, "Parameter \"%s\" is required by document %s", p->name, d->name);
			return TNL_EINVAL;
		}
		if (!is_valid_value(p->check, v)) {
			if (p->check == CHECK_TEXT)
				snprintf(why, cap, "Parameter \"%s\" must have 1 to %u bytes, this one has %zu",
					 p->name, COMMAND_MAX, strlen(v));
			else
				snprintf(why, cap, "Parameter \"%s\" has a value that document %s does not allow",
					 p->name, d->name);
			return TNL_EINVAL;
		}
		tnl_jw_kv(&w, p->name, v);
	}
	tnl_jw_end_obj(&w);
	return out->failed ? TNL_ENOMEM : 0;
}

static void write_inputs(struct tnl_jw *w, const char *kms_key_id, bool shell)
{
	tnl_jw_key(w, "inputs");
	tnl_jw_obj(w);
	if (!shell) {
		tnl_jw_kv(w, "kmsKeyId", kms_key_id);
		tnl_jw_end_obj(w);
		return;
	}
	tnl_jw_kv(w, "s3BucketName", "");
	tnl_jw_kv(w, "s3KeyPrefix", "");
	tnl_jw_key(w, "s3EncryptionEnabled");
	tnl_jw_bool(w, true);
	tnl_jw_kv(w, "cloudWatchLogGroupName", "");
	tnl_jw_key(w, "cloudWatchEncryptionEnabled");
	tnl_jw_bool(w, true);
	tnl_jw_key(w, "cloudWatchStreamingEnabled");
	tnl_jw_bool(w, false);
	tnl_jw_kv(w, "kmsKeyId", kms_key_id);
	tnl_jw_key(w, "runAsEnabled");
	tnl_jw_bool(w, false);
	tnl_jw_kv(w, "runAsDefaultUser", "");
	tnl_jw_key(w, "shellProfile");
	tnl_jw_raw(w, "{\"windows\":\"\",\"linux\":\"\"}");
	tnl_jw_end_obj(w);
}

int gw_doc_content(const struct gw_doc *d, const struct gw_doc_prefs *prefs, struct tnl_buf *out)
{
	const char *key = prefs->kms_key_id ? prefs->kms_key_id : "";
	struct tnl_jw w;
	tnl_jw_init(&w, out);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "schemaVersion", "1.0");
	tnl_jw_kv(&w, "description", d->description);
	tnl_jw_kv(&w, "sessionType", d->type);
	if (d->inputs || *key)
		write_inputs(&w, key, d->inputs);
	if (d->params[0].name) {
		tnl_jw_key(&w, "parameters");
		tnl_jw_obj(&w);
		for (int i = 0; i < DOC_PARAMS && d->params[i].name; i++) {
			tnl_jw_key(&w, d->params[i].name);
			tnl_jw_obj(&w);
			tnl_jw_kv(&w, "type", "String");
			tnl_jw_kv(&w, "description", d->params[i].description);
			if (d->params[i].dflt)
				tnl_jw_kv(&w, "default", d->params[i].dflt);
			tnl_jw_end_obj(&w);
		}
		tnl_jw_end_obj(&w);
	}
	if (d->properties) {
		tnl_jw_key(&w, "properties");
		tnl_jw_raw(&w, d->properties);
	}
	tnl_jw_end_obj(&w);
	return out->failed ? TNL_ENOMEM : 0;
}
