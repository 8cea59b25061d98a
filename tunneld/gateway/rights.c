/* What a user may do: targets, documents, ports and hosts of its section.
 *
 * A list that is not there allows all.  But who has a list of ports or hosts means sessions to those: documents without
 * a port, as shells are, then have to be named in `documents`. */
#include "tunneld/gateway/internal.h"
#include "lib/stock.h"
#include "lib/wire.h"
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

static bool matches(const struct td_strlist *l, const char *s, int flags)
{
	for (int i = 0; i < l->n; i++)
		if (fnmatch(l->v[i], s, flags) == 0)
			return true;
	return false;
}

bool gw_rights_target(const struct td_user_config *u, const char *target)
{
	return matches(&u->targets, target, 0);
}

static bool may_port(const struct td_user_config *u, const char *port)
{
	bool valid;
	for (int i = 0; i < u->ports.n; i++)
		if (td_config_port_in(u->ports.v[i], (uint16_t)strtoul(port, NULL, 10), &valid))
			return true;
	return u->ports.n == 0;
}

static bool may_host(const struct td_user_config *u, const char *host)
{
	struct td_addr a;
	bool literal = td_addr_literal(host, 1, &a);
	for (int i = 0; i < u->hosts.n; i++)
		if ((literal || !td_pattern_means_address(u->hosts.v[i])) &&
		    fnmatch(u->hosts.v[i], host, FNM_CASEFOLD) == 0)
			return true;
	return u->hosts.n == 0;
}

/* Nothing is known of where such streams go, so that none of it may be limited; and the document is the one that has
 * any host and port for its parameters. */
bool gw_rights_anywhere(const struct td_user_config *u, const char *document)
{
	return strcmp(document, TNL_DOCUMENT_ANYWHERE) == 0 && u->hosts.n == 0 && u->ports.n == 0;
}

struct tnl_start_grants gw_rights_grants(const struct td_user_config *u, const char *document)
{
	const struct gw_doc *d = gw_doc_find(document);
	return (struct tnl_start_grants){.dial = gw_rights_anywhere(u, document),
					 .reverse = u->reverse && d && gw_doc_is_port(d)};
}

const char *gw_rights_session(const struct td_user_config *u, const char *document, const char *parameters)
{
	struct tnl_json *j = tnl_json_parse(parameters, strlen(parameters));
	const struct gw_doc *d = gw_doc_find(document);
	const char *port = tnl_json_get_str(j, "portNumber"), *host = tnl_json_get_str(j, "host"), *denied = NULL;
	bool to_port = d && gw_doc_is_port(d);
	if (u->documents.n ? !matches(&u->documents, document, 0) : !to_port && (u->ports.n || u->hosts.n))
		denied = "document";
	else if (to_port && !may_port(u, port ? port : "0"))
		denied = "port";
	else if (to_port && !may_host(u, host ? host : "localhost"))
		denied = "host";
	tnl_json_free(j);
	return denied;
}
