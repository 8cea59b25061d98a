/* What the agent writes into its audit log: sessions that start, are refused and end, connections that are dialed,
 * refused and end, with who asked, what for, and how it ended.  Who: the owner that the gateway names.
 *
 * To be refused costs a client a few bytes; so of the refusals of a session a second has so many lines, the others are
 * counted ("event":"connection-refused-more"); so it is with listeners that he asks for. */
#include "tunneld/agent/internal.h"
#include "tunneld/base/audit.h"

#include <string.h>

#define REFUSALS_A_SECOND 20u

/* Documents name it in the properties, by system or not. */
static const char *command_of(const struct tnl_json *j)
{
	const struct tnl_json *linux_part = tnl_json_get(j, "linux");
	return tnl_json_get_str(linux_part ? linux_part : j, "commands");
}

static void put_start(struct td_audit_line *l, const struct tnl_start *start)
{
	const char *props = start->properties_json ? start->properties_json : "{}";
	struct tnl_json *j = tnl_json_parse(props, strlen(props));
	td_audit_str(l, "session", start->session_id);
	td_audit_str(l, "user", start->session_owner);
	td_audit_str(l, "document", start->document_name);
	td_audit_str(l, "type", start->session_type);
	td_audit_str(l, "host", tnl_json_get_str(j, "host"));
	td_audit_str(l, "port", tnl_json_get_str(j, "portNumber"));
	td_audit_str(l, "command", command_of(j));
	tnl_json_free(j);
}

void ag_audit_start(struct td_agent *a, const struct tnl_start *start, const char *refused)
{
	struct td_audit_line l;
	if (!td_audit_begin(a->audit, &l, refused ? "session-refused" : "session-start"))
		return;
	put_start(&l, start);
	td_audit_str(&l, "instance", a->instance_id);
	td_audit_str(&l, "text", refused);
	td_audit_end(&l);
}

/* --- refusals ---------------------------------------------------------------- */
static const struct kind { /* of lines that are counted when there are many */
	const char *more, *what;
} connections = {"connection-refused-more", "connections"}, listeners = {"listen-refused-more", "listeners"};

static void tell_more(const struct ag_session *s, struct ag_lines *r, const struct kind *kind)
{
	struct td_audit_line l;
	if (r->more && td_audit_begin(s->a->audit, &l, kind->more)) {
		td_audit_str(&l, "session", s->start.session_id);
		td_audit_str(&l, "user", s->start.session_owner);
		td_audit_num(&l, kind->what, r->more);
		td_audit_end(&l);
	}
	r->more = 0;
}

bool ag_lines_admit(struct ag_lines *r, unsigned most, uint64_t now)
{
	uint64_t second = now / TD_SEC;
	if (second != r->second)
		*r = (struct ag_lines){.second = second, .more = r->more};
	if (r->n >= most)
		return false;
	r->n++;
	return true;
}

static bool admit_refusal(const struct ag_session *s, struct ag_lines *r, const struct kind *kind)
{
	uint64_t second = r->second;
	if (!ag_lines_admit(r, REFUSALS_A_SECOND, s->a->loop->now)) {
		r->more++;
		return false;
	}
	if (second != r->second)
		tell_more(s, r, kind);
	return true;
}

/* --- what a session did -------------------------------------------------------- */
void ag_audit_end(struct ag_session *s, uint64_t received, uint64_t sent)
{
	struct td_audit_line l;
	tell_more(s, &s->refused, &connections);
	tell_more(s, &s->reverse.refused, &listeners);
	if (!td_audit_begin(s->a->audit, &l, "session-end"))
		return;
	put_start(&l, &s->start);
	td_audit_str(&l, "status", s->status);
	td_audit_str(&l, "text", s->output);
	td_audit_num(&l, "seconds", (s->a->loop->now - s->started_at) / TD_SEC);
	td_audit_num(&l, "bytes_in", received);
	td_audit_num(&l, "bytes_out", sent);
	td_audit_num(&l, "connections_cut", s->pump ? td_pump_pipes(s->pump) : 0);
	td_audit_end(&l);
}

static bool begin_connection(struct td_audit_line *l, const struct ag_session *s, const struct tnl_head *to,
			     const char *event)
{
	if (!td_audit_begin(s->a->audit, l, event))
		return false;
	td_audit_str(l, "session", s->start.session_id);
	td_audit_str(l, "user", s->start.session_owner);
	td_audit_str(l, to->kind == TNL_HEAD_UNIX ? "path" : "host", to->name);
	if (to->kind != TNL_HEAD_UNIX)
		td_audit_num(l, "port", to->port);
	if (to->kind == TNL_HEAD_UDP)
		td_audit_str(l, "protocol", "udp");
	return true;
}

void ag_audit_connection(struct ag_session *s, const struct tnl_head *to, uint32_t stream, const char *address,
			 const char *refused)
{
	struct td_audit_line l;
	if (refused && !admit_refusal(s, &s->refused, &connections))
		return;
	if (!begin_connection(&l, s, to, refused ? "connection-refused" : "connection"))
		return;
	td_audit_num(&l, "stream", stream);
	td_audit_str(&l, "address", address);
	td_audit_str(&l, "text", refused);
	td_audit_end(&l);
}

void ag_audit_connection_end(const struct ag_session *s, const struct tnl_head *to, const char *how, uint64_t in,
			     uint64_t out)
{
	struct td_audit_line l;
	if (!begin_connection(&l, s, to, "connection-end"))
		return;
	td_audit_str(&l, "text", how);
	td_audit_num(&l, "bytes_in", out); /* from the client to the service */
	td_audit_num(&l, "bytes_out", in);
	td_audit_end(&l);
}

static bool begin_listener(struct td_audit_line *l, const struct ag_session *s, const char *event, const char *bind)
{
	if (!td_audit_begin(s->a->audit, l, event))
		return false;
	td_audit_str(l, "session", s->start.session_id);
	td_audit_str(l, "user", s->start.session_owner);
	td_audit_str(l, "listen", bind);
	return true;
}

void ag_audit_listen(const struct ag_session *s, const char *event, const char *bind, const char *text)
{
	struct td_audit_line l;
	if (!begin_listener(&l, s, event, bind))
		return;
	td_audit_str(&l, "text", text);
	td_audit_end(&l);
}

void ag_audit_listen_refused(struct ag_session *s, const char *bind, const char *why)
{
	if (admit_refusal(s, &s->reverse.refused, &listeners))
		ag_audit_listen(s, "listen-refused", bind, why);
}

void ag_audit_incoming(const struct ag_session *s, const char *bind, const char *peer, uint32_t stream)
{
	struct td_audit_line l;
	if (!begin_listener(&l, s, "incoming", bind))
		return;
	td_audit_str(&l, "peer", peer);
	td_audit_num(&l, "stream", stream);
	td_audit_end(&l);
}

void ag_audit_incoming_end(const struct ag_session *s, const char *bind, const char *peer, const char *how, uint64_t in,
			   uint64_t out)
{
	struct td_audit_line l;
	if (!begin_listener(&l, s, "incoming-end", bind))
		return;
	td_audit_str(&l, "peer", peer);
	td_audit_str(&l, "text", how);
	td_audit_num(&l, "bytes_in", in); /* from who connected to the client */
	td_audit_num(&l, "bytes_out", out);
	td_audit_end(&l);
}
