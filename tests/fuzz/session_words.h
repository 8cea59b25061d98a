/* What an agent and a client say in the handshake of a port session, as stock ends and as our own. */
#ifndef SESSION_WORDS_H
#define SESSION_WORDS_H

#define SESSION_CAPS                                                                                                           \
	"{\"Version\":1,\"MaxPayload\":32768,\"Smux\":2,\"HalfClose\":true,\"Digest\":\"CRC32C\",\"Encrypt\":true,\"Seal\":2," \
	"\"Opens\":true,\"Reverse\":true}"
#define SESSION_CAPS_DIAL                                                                                              \
	"{\"Version\":1,\"MaxPayload\":32768,\"Smux\":2,\"HalfClose\":true,\"Dial\":1,\"Udp\":true,\"Opens\":true,\"Reverse\":true}"
#define SESSION_WORDS_CLIENT                                                                                           \
	2 /* the agent's come first; of each the stock end's and our own's, of the                                     \
	   * client's also one whose streams say where they go */

static const char *const session_words[] = {
    "{\"AgentVersion\":\"3.3.987.0\",\"RequestedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionParameters\":"
    "{\"SessionType\":\"Port\",\"Properties\":{\"type\":\"LocalPortForwarding\"}}}]}",
    "{\"AgentVersion\":\"3.3.987.0\",\"RequestedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionParameters\":"
    "{\"SessionType\":\"Port\",\"Properties\":{\"type\":\"LocalPortForwarding\"}}},"
    "{\"ActionType\":\"TunneldCapabilities\",\"ActionParameters\":" SESSION_CAPS "}]}",
    "{\"ClientVersion\":\"1.2.764.0\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionStatus\":1,"
    "\"ActionResult\":null,\"Error\":\"\"}],\"Errors\":null}",
    "{\"ClientVersion\":\"1.2.764.0\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionStatus\":1,"
    "\"ActionResult\":null,\"Error\":\"\"},{\"ActionType\":\"TunneldCapabilities\",\"ActionStatus\":1,"
    "\"ActionResult\":" SESSION_CAPS ",\"Error\":\"\"}],\"Errors\":null}",
    "{\"ClientVersion\":\"1.2.764.0\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionStatus\":1,"
    "\"ActionResult\":null,\"Error\":\"\"},{\"ActionType\":\"TunneldCapabilities\",\"ActionStatus\":1,"
    "\"ActionResult\":" SESSION_CAPS_DIAL ",\"Error\":\"\"}],\"Errors\":null}",
};

#endif
