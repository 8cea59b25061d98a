/* Versions of the stock programs: what we say that we are, and what theirs decide (docs/protocol.md "Handshake").
 *
 * AWS raises what it supports from time to time and refuses older ends then.  Both of ours stand at the floor that was
 * announced last (plugin, 2025-11) or above: when it rises, these two lines and the versions in docs/interop.md change,
 * after the newer programs' sources have been read for what they expect of one another.  docs/protocol.md names
 * them too; a test compares. */
#ifndef TNL_STOCK_H
#define TNL_STOCK_H

#define TNL_CLIENT_VERSION "1.2.764.0" /* session-manager-plugin */
#define TNL_AGENT_VERSION "3.3.987.0"  /* amazon-ssm-agent */

#define TNL_CLIENT_MUX "1.1.70.0"	 /* this and later: the agent multiplexes */
#define TNL_CLIENT_QUIET_MUX "1.2.331.0" /* later: no smux keep-alives from the agent */
#define TNL_AGENT_MUX "3.0.196.0"	 /* later: the client multiplexes */
#define TNL_AGENT_QUIET_MUX "3.1.1511.0" /* later: it needs no smux keep-alives */
#define TNL_AGENT_TERMINATE "2.3.722.0"	 /* later: it knows the TerminateSession flag */

/* The document whose parameters are any host and port. */
#define TNL_DOCUMENT_ANYWHERE "AWS-StartPortForwardingSessionToRemoteHost"

#endif
