#include "tunneld/command/wish.h"

#include "lib/num.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODE(m) (1u << TNL_MODE_##m)

static const struct document {
	const char *name;
	unsigned modes;
} documents[] = {
    {"SSM-SessionManagerRunShell", MODE(SHELL)},
    {"AWS-StartInteractiveCommand", MODE(SHELL)},
    {"AWS-StartNonInteractiveCommand", MODE(COMMAND)},
    {"AWS-StartSSHSession", MODE(SINGLE)},
    {"AWS-StartPortForwardingSession", MODE(MUX) | MODE(BASIC)},
    {"AWS-StartPortForwardingSessionToRemoteHost", MODE(MUX) | MODE(BASIC)},
    {"AWS-StartPortForwardingSessionToSocket", MODE(MUX) | MODE(BASIC)},
};

/* One that tells what its sessions are; NULL: another's, or none is named. */
static const struct document *known_document(const struct td_wish *w)
{
	for (size_t i = 0; w->document && i < TNL_COUNT(documents); i++)
		if (strcmp(documents[i].name, w->document) == 0)
			return &documents[i];
	return NULL;
}

/* A parameter is a list of one text. */
static const char *parameter(const struct tnl_json *all, const char *name)
{
	const struct tnl_json *v = tnl_json_get(all, name);
	const char *s = tnl_json_str(v) ? tnl_json_str(v) : tnl_json_str(tnl_json_at(v, 0));
	return s && *s ? s : NULL;
}

void td_wish_init(struct td_wish *w, const char *parameters)
{
	*w = (struct td_wish){.all = parameters ? tnl_json_parse(parameters, strlen(parameters)) : NULL};
	const struct tnl_json *p = tnl_json_get(w->all, "Parameters");
	w->target = tnl_json_get_str(w->all, "Target");
	w->document = tnl_json_get_str(w->all, "DocumentName");
	w->port = parameter(p, "localPortNumber");
	w->socket = parameter(p, "localUnixSocket");
}

void td_wish_fini(struct td_wish *w)
{
	tnl_json_free(w->all);
	*w = (struct td_wish){0};
}

bool td_wish_allows(const struct td_wish *w, enum tnl_session_mode mode)
{
	const struct document *d = known_document(w);
	return !d || (d->modes >> mode & 1);
}

int td_wish_listen(const struct td_wish *w, const struct tnl_json *properties, char *out, size_t cap, char *why,
		   size_t why_cap)
{
	const char *kind = tnl_json_get_str(properties, "localConnectionType"),
		   *port = tnl_json_get_str(properties, "localPortNumber");
	bool custom = w->document && !known_document(w);

	if (w->socket) {
		snprintf(out, cap, "unix:%s", w->socket);
		return 0;
	}
	if (kind && strcmp(kind, "unix") == 0) {
		snprintf(why, why_cap,
			 "the far end names a Unix socket, and the command line none: pass localUnixSocket");
		return -1;
	}
	if (!w->port && custom && port && *port && strcmp(port, "0") != 0) {
		char *end;
		unsigned long n = strtoul(port, &end, 10);
		if (*end || n < 1024 || n > 65535) {
			snprintf(why, why_cap, "the far end names port %.20s: pass localPortNumber for one below 1024",
				 port);
			return -1;
		}
		snprintf(out, cap, "127.0.0.1:%lu", n);
		return 0;
	}
	snprintf(out, cap, "127.0.0.1:%s", w->port ? w->port : "0");
	return 0;
}
