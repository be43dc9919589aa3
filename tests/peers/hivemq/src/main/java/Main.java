import com.hivemq.embedded.EmbeddedHiveMQ;
import java.nio.file.Path;

/** HiveMQ CE with the configuration, data and extensions folders that are named, until it is ended. */
public final class Main {
    public static void main(final String[] folders) {
        final EmbeddedHiveMQ broker = EmbeddedHiveMQ.builder()
                .withConfigurationFolder(Path.of(folders[0]))
                .withDataFolder(Path.of(folders[1]))
                .withExtensionsFolder(Path.of(folders[2]))
                .build();
        broker.start().join();
        System.out.println("started");
    }
}
